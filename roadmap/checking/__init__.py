"""What must hold of every design, plug-ins and all, tried on a small network."""
