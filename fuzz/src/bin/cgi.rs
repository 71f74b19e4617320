//! See [`pinnace_fuzz::cgi`].

#![cfg_attr(feature = "libfuzzer", no_main)]

pinnace_fuzz::program!(pinnace_fuzz::cgi::check);
