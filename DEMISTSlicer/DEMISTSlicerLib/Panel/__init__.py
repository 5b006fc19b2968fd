"""What the user sees and does: the widget, its sections, the parameters kept in the scene."""
