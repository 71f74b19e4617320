//! See [`pinnace_fuzz::header_rules`].

#![cfg_attr(feature = "libfuzzer", no_main)]

pinnace_fuzz::program!(pinnace_fuzz::header_rules::check);
