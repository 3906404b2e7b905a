"""What a piece of hardware can do, as data: profiles, their loader, and questions asked of them."""
