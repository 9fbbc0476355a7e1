//! coturn from one typed description.
