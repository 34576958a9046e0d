"""The protocol without bytes: messages, the two machines, cohort, policy."""
