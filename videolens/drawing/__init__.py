"""What every figure, view and page shares: style, small pieces of HTML, the page around them."""
