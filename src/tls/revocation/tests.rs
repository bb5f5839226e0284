//! Chains, lists and authorities, as `pki` tools make them.
