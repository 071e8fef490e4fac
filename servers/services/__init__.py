"""Every verb that changes state, and every question that pages, API and commands ask."""
