//! To come with its topic.
