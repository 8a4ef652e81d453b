"""The options of the application, room by room: mixins of traits, so that ``app`` stays the builder of layers."""
