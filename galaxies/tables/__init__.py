"""Tables from elsewhere: read, and their ids, numbers and classes judged, by one set of rules for all."""
