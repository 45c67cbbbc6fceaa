"""Video: decoding files into frames with exact times, sampling them, editing them."""
