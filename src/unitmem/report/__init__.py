"""From data to text: tables for people, documents for programs, and error messages."""
