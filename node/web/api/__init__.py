"""The node as JSON: one file for each noun; `node.web.api.form` holds what all of them share."""
