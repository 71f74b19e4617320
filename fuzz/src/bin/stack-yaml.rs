//! See [`pinnace_fuzz::stack_yaml`].

#![cfg_attr(feature = "libfuzzer", no_main)]

pinnace_fuzz::program!(pinnace_fuzz::stack_yaml::check);
