"""What the figures are compared with: other people's programs and packages, each called as its documentation says."""
