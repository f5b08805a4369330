"""What a person looks at after a run: the table and the pictures."""
