"""The instrument that looks inside the model. It imports the model, never the other way round."""
