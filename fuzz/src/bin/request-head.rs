//! See [`pinnace_fuzz::request_head`].

#![cfg_attr(feature = "libfuzzer", no_main)]

pinnace_fuzz::program!(pinnace_fuzz::request_head::check);
