//! See [`pinnace_fuzz::small_parsers`].

#![cfg_attr(feature = "libfuzzer", no_main)]

pinnace_fuzz::program!(pinnace_fuzz::small_parsers::check);
