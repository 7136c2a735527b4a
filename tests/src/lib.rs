//! Namespace lab, scenarios, conformance, fault runs, benchmarks, tidy.
