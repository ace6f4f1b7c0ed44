"""Back ends: which hosts there are, and how an argv runs on one of them."""
