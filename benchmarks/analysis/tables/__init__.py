"""The result tables: from records to CSV and Markdown, and what one needs to believe them."""
