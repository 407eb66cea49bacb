"""What a run did, for people: model, figures, pictures and pages."""
