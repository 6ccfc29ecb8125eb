"""The web application in which people judge a dataset's clips: `microg review`."""
