"""What people and models said of clips: each judgement a row, what is accepted a view of them."""
