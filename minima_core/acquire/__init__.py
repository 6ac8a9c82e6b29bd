"""Data from elsewhere: which sources there are, how their files come here, and how archives are opened safely."""
