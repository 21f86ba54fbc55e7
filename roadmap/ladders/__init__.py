"""Steps, and what they make of a network: the ladder and the published networks on either side of it."""
