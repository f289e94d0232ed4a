"""Everything that makes the supernet faster and changes nothing of what it computes."""
