"""A fleet of sandboxes that records twenty times what its account may send, in three ways."""
