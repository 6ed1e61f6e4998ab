"""What people build without Rejoin, as plainly as its documentation suggests. Nothing is tuned."""
