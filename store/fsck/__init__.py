"""`nadir fsck`: what is looked at, on disk and in SQL, and what can be mended safely."""
