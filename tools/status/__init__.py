"""`make status`: how a site is, on one screen, asked of its hosts."""
