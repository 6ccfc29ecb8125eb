"""Models whose code lies in their own repository: run only with consent, and asked as their authors ask them."""
