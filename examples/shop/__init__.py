"""The example shop: a Penstock project, a generator of synthetic shoppers, and a demo that runs both."""
