//! JSON as Go reads it: keys match without regard to case, `null` is absent.
