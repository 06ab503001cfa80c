//! The examples from outside, as their users see them.

mod channels;
mod http_cluster;
mod http_reload;
mod node_channels;
mod node_clusters;
mod os_info;
mod process_1;
