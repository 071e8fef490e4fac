"""Reading the portal's pages, which are treated as hostile."""
