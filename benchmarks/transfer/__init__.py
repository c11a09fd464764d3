"""Code that several tasks share: dense transfers with their pictures."""
