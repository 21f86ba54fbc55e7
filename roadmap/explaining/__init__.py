"""What a step does to the network: `outline` and `reach` read built networks, `content` puts together what to
say, as plain data, `words` says it without a layout, and `text` shows it in a terminal."""
