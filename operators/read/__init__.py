"""Readers: files of web pages and text in, batches of documents and of what could not be read out."""
