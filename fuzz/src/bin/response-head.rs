//! See [`pinnace_fuzz::response_head`].

#![cfg_attr(feature = "libfuzzer", no_main)]

pinnace_fuzz::program!(pinnace_fuzz::response_head::check);
