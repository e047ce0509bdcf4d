"""Data to text: tables for people, documents for programs, errors in one voice."""
