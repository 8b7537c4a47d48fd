"""What the developers of valqd run, and its users never: no part of the package."""
