"""What people look at: overlay pictures, a table as CSV, and one page that stands alone."""
