"""What happened: runs, their attempts on tenants and the events in them. It records and explains; it never decides."""
