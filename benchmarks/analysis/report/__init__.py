"""One self-contained page of all results: tables that sort, figures, masks, and the records behind every number."""
