"""What a person looks at after a run: the table, the pictures, and a page with both."""
