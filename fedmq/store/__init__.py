"""What fedmq keeps on disk, written so that a power cut leaves the old state or the new one."""
