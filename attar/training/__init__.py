"""The one supervised loop that students and teachers share, and its augmentation."""
